"""Language models that studies of generated text have trained, as folders of transformers."""
