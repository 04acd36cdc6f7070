r"""The smoothed score of any teacher with a density, and its response, by sampling the posterior.

Given a noisy field :math:`x = X_0 + \sigma\xi`, :math:`v = \sigma^2`, the posterior of the clean field is
:math:`p(x_0|x) \propto p_0(x_0)\, e^{-\|x - x_0\|^2/2v}`. Chains (:mod:`sizetransfer.numerics.chains`) sample it in one
of two coordinates, which give the same law:

- ``latent``: :math:`x_0 = F(z)` with a standard normal prior for z, where the teacher is such an image;
  well-conditioned where the noise is large;
- ``field``: :math:`x_0 = x + \sigma u` with the teacher's log-density or energy; well-conditioned where it is small.

With posterior means and covariances, every quantity of the smoothed score follows. For any weight w

.. math:: f = w\, s_0(X_0) + (1 - w)\,\frac{X_0 - x}{v}, \qquad s_v(x) = E[f | x], \qquad
    \frac{\partial s_{v,i}}{\partial x_j} = \frac1v\operatorname{Cov}(f_i, X_{0j} | x) - \frac{1 - w}v\,\delta_{ij} .

w = 0 is Tweedie's formula and equation (9) of the paper, w = 1 the target-score identity (De Bortoli et al. 2024) and
its derivative. Their errors fall at opposite ends of the noise, and for a white Gaussian of variance c the weight
:math:`w = c/(c + v)` makes f constant. Integrating by parts once more,
with the Hessian :math:`H = \nabla s_0` of the clean log-density,

.. math:: \frac{\partial s_{v,i}}{\partial x_j} = \operatorname{Cov}(f_i, f_j | x) + w^2\, E[H_{ij}(X_0) | x]
    - \frac{(1 - w)^2}v\,\delta_{ij} ,

whose error is smaller still, because f hardly varies and H is local; Hessians are taken of a few draws only. All this
holds for a symmetric matrix W in the place of w (:math:`W H W` in that of :math:`w^2 H`), and the best one,
:math:`W = (1 + v\,E[-H])^{-1}`, is a regression (:mod:`sizetransfer.scores.posterior.weights`): on a torus a filter in
Fourier space that knows the two sublattices apart. With it f is constant for every Gaussian field that is invariant
under even translations, and what is left of its noise is the teacher's departure from one. Responses take W from other
chains than those that it is applied to, and are unbiased; a score takes it from the same ones, which shifts the
estimate by a fraction of its standard error of the order of the root of one over the effective sample size.

Standard errors come from the spread of independent chains. Covariances do too: the products of the deviations minus
those of *different* chains' means are unbiased, whatever the autocorrelation. An absolute value is not: that of a
response which is zero has the mean of its own noise, and a tail sums thousands of them. Two estimates without that
floor enclose a shell's sum :math:`\sum_j |J_{ij}|` in expectation:

- from below, :math:`\sum_j \eta_{ij} J_{ij}` with signs :math:`\eta` from other chains (independent: where
  J is zero the mean is zero, where a sign is wrong it is too small). On a torus the signs are those of a shrinkage
  estimate: the mean over fields and even translations, known better than any single entry, plus the entry's own
  departure from it, weighted by how far the departures of different chains agree;
- from above, :math:`(n \sum_j J_{ij}^2)^{1/2}` (Cauchy and Schwarz, n sites on the shell), squares from products of
  different chains.
"""

from __future__ import annotations

from sizetransfer.scores.posterior.estimates import EstimatedField, Posterior
from sizetransfer.scores.posterior.responses import Responses
from sizetransfer.scores.posterior.sampling import PosteriorSpec, sample_posterior

__all__ = ["EstimatedField", "Posterior", "PosteriorSpec", "Responses", "sample_posterior"]
