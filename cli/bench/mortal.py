"""Imported first where runs are forked from: Ctrl-C ends that process and its runs, without a word.

It is started deaf to Ctrl-C, since until here Python would answer with a traceback.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
