"""The competition's data: where it lies, how it is read and checked, and how it is split into folds."""
