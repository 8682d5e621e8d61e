"""Results and exported models of a study, uploaded to the Hugging Face Hub."""
