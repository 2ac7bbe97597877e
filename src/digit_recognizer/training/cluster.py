# NOTE TO THE CLUSTER ENGINEER, from the lead: at 15:54 I overwrote your cluster.py by mistake, sorry. Your text
# is lost from the disk: write the file again from your own conversation (you created it minutes before). My
# version is in /tmp/lead_cluster.py, to look at only. Delete this note.
