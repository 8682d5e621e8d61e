"""One flat training loop over an engine, and fused versions of it that tests hold equal to it.

Engines are plain torch for one process and DeepSpeed for several. The room does not import the
store, model cards or exports: a job is handed its checkpoint storage and its export.
"""
