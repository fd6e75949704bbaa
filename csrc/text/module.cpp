// The Python module crnn_ext._text; each part is bound in the file of its name.
#include "text/arpa.h"
#include "text/charset.h"
#include "text/hotwords.h"
#include "text/lexicon.h"
#include "text/ngrams.h"

PYBIND11_MODULE(_text, module) {
  crnn::text::bind_charset(module);
  crnn::text::bind_ngrams(module);
  crnn::text::bind_arpa(module);
  crnn::text::bind_lexicon(module);
  crnn::text::bind_hotwords(module);
}
