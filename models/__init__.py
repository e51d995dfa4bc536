"""Training, calibration and evaluation of the classifier that router-extproc ships."""
