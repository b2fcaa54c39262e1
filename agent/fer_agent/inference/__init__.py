"""What runs a network; each module here is an `InferenceSession` and knows no other room."""
