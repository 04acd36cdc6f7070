r"""Any torch module as a student: a public diffusion backbone is evaluated without a fork.

A module was trained in units, and on a process, of its own; each conversion is stated here and nowhere else. Symbols:
x is the noisy field of variance-exploding noise, :math:`x = x_0 + \sigma\xi`, in the units of the field.

**Units.** ``scale`` c and ``shift`` m turn fields into what the model was trained on,

.. math:: u = (x - m)/c, \qquad \sigma_u = \sigma/c, \qquad s(x, \sigma) = s_u(u, \sigma_u)/c.

========================  ==============================================================================
``scale``
========================  ==============================================================================
a number c                fields of deviation c became fields of deviation one
a list                    one number a channel; they must agree, since noise is equal in all channels
``unit``                  c is ``field.sigma_data``
``[-1, 1]``               ``data_range`` (a, b) became [-1, 1]: c = (b - a)/2, m = (a + b)/2
========================  ==============================================================================

**Process.** What the module is called with is z and a time or noise level, with
:math:`\alpha = (1+\sigma_u^2)^{-1/2} = \sqrt{\bar\alpha_t}`:

========  ========================================  ============================  ==========================
process   z                                         inputs by default             predictions by default
========  ========================================  ============================  ==========================
``ve``    :math:`u`                                 ``x, sigma``                  ``score``
``vp``    :math:`\alpha u`                          ``unit_x, timestep``          ``noise``
``edm``   :math:`u/\sqrt{\sigma_u^2+\sigma_d^2}`    ``scaled_x, noise_label``     ``preconditioned``
========  ========================================  ============================  ==========================

**Prediction.** What it returns, F, and the score that this is, with :math:`a = z/u`
(Tweedie, paper eq. (7); Karras et al. 2022, arXiv:2206.00364; Salimans, Ho 2022, arXiv:2202.00512):

- ``score``: :math:`F = \nabla_z\log p(z)`, so :math:`s_u = aF`;
- ``clean``: :math:`F = E[u_0|z]`, so :math:`s_u = (F - u)/\sigma_u^2`;
- ``noise``: :math:`F = E[\xi|z]`, so :math:`s_u = -F/\sigma_u`;
- ``v``: :math:`F = E[\sigma_d\xi - \sigma_u u_0/\sigma_d\,|\,z]/\sqrt{\sigma_u^2+\sigma_d^2}`, so
  :math:`s_u = -u/(\sigma_u^2+\sigma_d^2) - F\,\sigma_d/(\sigma_u\sqrt{\sigma_u^2+\sigma_d^2})`;
- ``preconditioned``: minus that, the F of EDM's :math:`D = c_\mathrm{skip}u + c_\mathrm{out}F`,

with :math:`\sigma_d = 1` for ``ve`` and ``vp``, where ``v`` is :math:`\alpha\xi - \alpha\sigma_u u_0`; and
``sigma_data`` for ``edm``. In ``diffusers``' EDM scheduler ``epsilon`` is ``preconditioned`` here, and ``v_prediction``
is ``v``.

**Quantities.** ``inputs`` lists what the module is called with, each by position or, as in
``"sample=unit_x, timestep=timestep"``, by name:

=========================  =============================================================================
``x``                      u
``scaled_x``               :math:`u/\sqrt{\sigma_u^2+\sigma_d^2}`, unit variance at every noise level
``unit_x``                 :math:`u\,\alpha`, the input of a variance-preserving model
``sigma``, ``log_sigma``   :math:`\sigma_u`, its natural logarithm
``noise_label``            :math:`\tfrac14\log\sigma_u`
``variance``               :math:`\sigma_u^2`
``timestep``               what ``timestep`` makes of :math:`\sigma_u`
``condition``, ``mask``    what the context holds
=========================  =============================================================================
"""

from __future__ import annotations

from sizetransfer.students.wrapped.conventions import PREDICTIONS, QUANTITIES, parse_inputs
from sizetransfer.students.wrapped.module import WrappedModule, wrap_module
from sizetransfer.students.wrapped.schedules import Timestep, continuous_timestep, nearest_timestep
from sizetransfer.students.wrapped.specification import ModuleSpec
from sizetransfer.students.wrapped.weights import load_weights

__all__ = [
    "PREDICTIONS",
    "QUANTITIES",
    "ModuleSpec",
    "Timestep",
    "WrappedModule",
    "continuous_timestep",
    "load_weights",
    "nearest_timestep",
    "parse_inputs",
    "wrap_module",
]
