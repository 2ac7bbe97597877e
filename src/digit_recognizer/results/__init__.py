"""What a run predicts and scores: the ensemble, its submission and its report. No Keras here."""
