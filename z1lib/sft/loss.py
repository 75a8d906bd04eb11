"""The cross entropy of training on a CPU: a few tokens at a time, so that no scores are ever held in float32."""

import torch

CHUNK = 16  # tokens at a time: their float32 scores over some 50,000 words stay in a processor's cache


class SummedLoss(torch.autograd.Function):
    """The sum of -log p(label) over tokens: a float32 scalar of logits (tokens, vocabulary) and labels (tokens,).

    The softmax is taken in float32 whatever the dtype of the logits, and again on the way back instead of being kept.
    """

    @staticmethod
    def forward(ctx, logits, labels):
        pairs = list(zip(logits.split(CHUNK), labels.split(CHUNK)))
        norms = [chunk.float().logsumexp(1) for chunk, _ in pairs]
        chosen = [chunk.gather(1, each[:, None]).squeeze(1).float() for chunk, each in pairs]
        ctx.save_for_backward(logits, labels, norms := torch.cat(norms))
        return (norms - torch.cat(chosen)).sum()

    @staticmethod
    def backward(ctx, above):
        logits, labels, norms = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        parts = (tensor.split(CHUNK) for tensor in (gradient, logits, labels, norms))
        for out, chunk, label, norm in zip(*parts):
            probability = (chunk.float() - norm[:, None]).exp_()
            probability[torch.arange(len(label)), label] -= 1
            out.copy_(probability.mul_(above))
        return gradient, None
