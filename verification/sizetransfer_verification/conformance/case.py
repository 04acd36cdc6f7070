"""One example that a check is run on: small, written as JSON, and enough to run it again."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from sizetransfer.contracts.domain import Domain, Site
from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.randomness import stream

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class Case:
    """What is drawn for one run of a check; everything else follows from it.

    Attributes:
        member: which of the subject's fields (students), by position.
        size: sites along each axis; sites in all on a graph.
        batch: fields in the batch.
        noise: noise level in units of the field's standard deviation ``sigma_data``.
        dtype: ``float64`` or ``float32``.
        device: a torch device.
        seed: names the random streams of fields, sites and directions.
    """

    member: int = 0
    size: int = 4
    batch: int = 2
    noise: float = 1.0
    dtype: str = "float64"
    device: str = "cpu"
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Case:
        """Read what :meth:`to_json` wrote; fields left out take their defaults.

        Raises:
            SpecError: not JSON, an unknown field, or a number that no report shows.
        """
        try:
            case = cls(**json.loads(text))
            case._check()
        except (TypeError, ValueError) as error:
            raise SpecError(
                "The example cannot be read.",
                where="example",
                expected=Case().to_json(),
                got=text,
                fix=f"copy the example from a report ({error})",
            ) from None
        return case

    def _check(self) -> None:
        """Refuse numbers that no report shows.

        Raises:
            ValueError: the first field that is wrong.
        """
        for name, least in (("member", 0), ("size", 1), ("batch", 1), ("seed", 0)):
            number = getattr(self, name)
            if type(number) is not int or number < least:
                raise ValueError(f"{name} is an integer of at least {least}")
        # JSON may hold anything, whatever the annotations say.
        noise: object = self.noise
        device: object = self.device
        if not isinstance(noise, int | float) or not 0 < noise < math.inf:
            raise ValueError("noise is a positive number")
        if self.dtype not in ("float64", "float32") or not isinstance(device, str):
            raise ValueError("dtype is float64 or float32, device the name of one")

    def to_json(self) -> str:
        """The case as JSON."""
        return json.dumps(asdict(self))

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype itself."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def generator(self, *labels: int | str) -> torch.Generator:
        """A stream of its own for each name."""
        return stream("conformance", self.seed, *labels)

    def site(self, domain: Domain, *labels: int | str) -> Site:
        """A site of the domain."""
        flat = int(torch.randint(domain.sites, (1,), generator=self.generator("site", *labels)))
        return tuple(int(index) for index in torch.unravel_index(torch.tensor(flat), domain.shape))


@dataclass(frozen=True)
class CaseSpace:
    """Which cases a check is run on.

    Attributes:
        examples: how many are drawn.
        batches: batch sizes.
        dtypes: dtypes.
        noises: noise levels in units of the field's standard deviation.
        largest: sites, in all, that a size may have.
        smallest: sites, in all, that a size must have.
    """

    examples: int = 6
    batches: tuple[int, ...] = (1, 2, 3)
    dtypes: tuple[str, ...] = ("float64",)
    noises: tuple[float, ...] = (1.0, 0.3, 0.05, 5.0)
    largest: int = 300
    smallest: int = 1

    def strategy(self, sizes: Sequence[Sequence[int]], devices: Sequence[str]) -> SearchStrategy[Case]:
        """Draw cases; the smallest come first, so that a failure shrinks to them.

        Args:
            sizes: the sizes of each member.
            devices: torch devices.
        """
        from hypothesis import strategies as st

        pairs = [(member, size) for member, of_member in enumerate(sizes) for size in of_member]
        return st.builds(
            lambda pair, *rest: Case(*pair, *rest),
            st.sampled_from(pairs),
            st.sampled_from(self.batches),
            st.sampled_from(self.noises),
            st.sampled_from(self.dtypes),
            st.sampled_from(list(devices)),
            st.integers(0, 15),
        )
