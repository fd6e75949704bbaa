"""Helpers for the tests of BeamSearchDecoder: emissions, and results of beam_search in comparable form."""

import torch

from crnn_ext.ctc import beam_search

TOKENS = ["-", "|", "a", "b", "c"]


def random_emissions(samples=6, frames=12, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, frames, classes, generator=generator) * 1.5


def best_hypothesis(decoder, text, tokens=TOKENS):
    """The best hypothesis for emissions that spell these tokens, each followed by a blank frame."""
    path = [index for token in text for index in (tokens.index(token), 0)]
    emissions = 9.0 * torch.nn.functional.one_hot(torch.tensor([path]), len(tokens))
    return decoder(emissions)[0][0]


def as_tuples(hypotheses):
    """The fields of the hypotheses, comparable by ==."""
    return [
        [
            (
                *(h.tokens.tolist(), h.words, h.text, h.score),
                *(h.timesteps.tolist(), h.log_prob, h.token_logp.tolist()),
                *(h.starts.tolist(), h.ends.tolist()),
            )
            for h in sample
        ]
        for sample in hypotheses
    ]


def expected_tuples(emissions, lengths=None, **options):
    """`as_tuples` of what BeamSearchDecoder(TOKENS) should return, by beam_search."""
    result = beam_search(emissions.transpose(0, 1), lengths, **options)
    found = []
    for n in range(len(emissions)):
        sample = []
        for k, length in enumerate(result.lengths[n].tolist()):
            if length < 0:
                continue
            tokens = result.tokens[n, k, :length].tolist()
            text = "".join(" abc"[token - 1] for token in tokens)
            score, log_prob = result.scores[n, k].item(), result.log_probs[n, k].item()
            timesteps, token_logp, starts, ends = (
                part[n, k, :length].tolist()
                for part in (result.timesteps, result.token_logp, result.starts, result.ends)
            )
            sample.append((tokens, text.split(), text, score, timesteps, log_prob, token_logp, starts, ends))
        found.append(sample)
    return found
