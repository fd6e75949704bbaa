"""Character sets, language models, lexicons and hot words."""

from crnn_ext.text.charset import Charset
from crnn_ext.text.hotwords import HotWords
from crnn_ext.text.lexicon import Lexicon
from crnn_ext.text.ngram import NGramModel

__all__ = ["Charset", "HotWords", "Lexicon", "NGramModel"]
