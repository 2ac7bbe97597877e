"""From the CSVs of Kaggle's Digit Recognizer to submission.csv."""
