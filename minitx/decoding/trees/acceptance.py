"""Which of several drafted tokens becomes the next one, so that the target's distribution is unchanged.

The children of a node are offered one after the other (SpecInfer, arXiv:2305.09781, algorithm 2, with
children that differ). Child c, drawn from q, is accepted with probability min(1, p(c) / q(c)). After a
rejection the next child faces what is left:

    p <- norm((p - q)+)        q <- q without c, renormalised

If no child is accepted, the token is drawn from the p that is left. Each round alone leaves the law p
unchanged, as in speculative sampling (arXiv:2211.17192, appendix A.1), and so do all of them together, by
induction from the last round to the first.

A child that was not drawn but chosen, such as the most probable token of a head, has the one-hot q: it is
accepted with probability p(c), and its rejection removes c from p.

R rows, C children, V vocabulary. Everything is computed in the dtype of the arguments.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from minitx.decoding.speculative.acceptance import accept_probability, residual


def without(q: Tensor, token: Tensor) -> Tensor:
    """Returns the draft's distribution of the next child, q without a token, renormalised.

    (R, V), (R,) -> (R, V); all zero where q held nothing else.
    """
    rest = q.scatter(1, token[:, None], 0)
    return rest / rest.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)


def offer(p: Tensor, q: Tensor | None, children: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Offers the children of a node one after the other.

    Args:
        p: (R, V), the target's distribution after the node.
        q: (R, V), the distribution of the first child; the others were drawn from it without replacement,
            in this order. None: every child was chosen and not drawn.
        children: (R, C) ids; -1 for none.
        uniforms: (R, C), uniform on [0, 1), independent of each other and of the draft.

    Returns:
        The number (R,) of the accepted child, -1 for none, and what is left of p (R, V), from which the token
        is drawn if no child is accepted.
    """
    accepted = torch.full_like(children[:, 0], -1)
    for number, (child, uniform) in enumerate(zip(children.T, uniforms.T, strict=True)):
        token = child.clamp(min=0)
        law = F.one_hot(token, p.shape[-1]).to(p.dtype) if q is None else q
        offered = (accepted < 0) & (child >= 0)
        taken = offered & (uniform < accept_probability(p, law, token))
        accepted = torch.where(taken, number, accepted)
        rejected = (offered & ~taken)[:, None]
        p = torch.where(rejected, residual(p, law), p)
        q = q if q is None else torch.where(rejected, without(law, token), law)
    return accepted, p


def match(token: Tensor, children: Tensor) -> Tensor:
    """Returns the number of the first child that is this token: (R,), (R, C) -> (R,), -1 for none.

    The token is the target's own choice, greedy or drawn, so it is emitted in any case: verification by
    comparison is exact for every draft. For children that were chosen and not drawn it accepts as often as
    `offer` does, with probability p(child) summed over the children.
    """
    same = children == token[:, None]
    return torch.where(same.any(dim=1), same.long().argmax(dim=1), -1)


def typical(p: Tensor, epsilon: float, delta: float) -> Tensor:
    """Returns which tokens typical acceptance accepts (Medusa, arXiv:2401.10774, section 2.3.1): lossy.

    Accepted is p(token) > min(epsilon, delta * exp(-H(p))), so a flat distribution accepts more tokens. The
    law of the output is not the target's.

    Args:
        p: (R, V)
        epsilon: the largest threshold.
        delta: factor of the entropy's threshold.

    Returns:
        (R, V) bool
    """
    entropy = torch.special.entr(p).sum(dim=-1, keepdim=True)
    return p > (delta * torch.exp(-entropy)).clamp(max=epsilon)
