"""What comes from outside is bounded before it is read: files, texts, and the limits on them.

Every file that this project did not write passes through here: specs, data, configurations,
tokenizers, headers of weights. ``limits`` states each limit once, ``opening`` opens nothing but
regular files of bounded size, ``json_text`` reads JSON of bounded depth. The package imports no
code of ours but ``errors``.
"""
