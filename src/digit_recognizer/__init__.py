"""From the CSVs of Kaggle's Digit Recognizer to submission.csv."""

COMPETITION = "digit-recognizer"  # the last part of its address on Kaggle
SIDE = 28  # pixels of a digit's picture, in each direction
