"""What is looked at before the first step of training: samples, their ids and masks, the model."""
