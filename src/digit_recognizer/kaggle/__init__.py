"""Everything that talks to Kaggle: download, submission, kernel."""
