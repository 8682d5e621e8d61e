"""All Ray orchestration: a session, one Tune run over the missing steps, Train worker groups.

Ray is imported here and in ``data/stream.py``, nowhere else. Nothing here knows what a step
computes; the store alone is the truth about what is done, and Tune's own state is thrown away.
"""
