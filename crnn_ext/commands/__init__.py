"""The commands of `crnn-ext`, one module each: `add_parser` adds its parser, `run` returns the exit status.

The exit status is 0; 1 if some inputs could not be used; 2 if nothing could be done.
"""
