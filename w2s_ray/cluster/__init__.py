"""All Ray orchestration: a session, one Tune run over the unfinished steps, Train worker groups.

Ray is imported here and in ``data/stream.py``, nowhere else. Nothing here knows what a step
computes; the store alone records what is done, and Tune's own state is discarded.
"""
