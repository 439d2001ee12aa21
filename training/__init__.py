"""What makes a model: fine-tuning, export, quantisation, evaluation, gates, registration."""
