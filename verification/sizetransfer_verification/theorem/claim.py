"""Claims about configurations: a true distance, a bound on it, and which of the two is larger."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from sizetransfer.contracts.errors import SpecError
from sizetransfer.contracts.quantity import Quantity

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class Configuration:
    """Plain numbers that determine a solvable process; subclasses add them.

    Attributes:
        family: names the subclass in JSON.
    """

    family: ClassVar[str]
    _families: ClassVar[dict[str, type[Configuration]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        Configuration._families[cls.family] = cls

    def to_json(self) -> str:
        """The configuration as JSON, which :func:`read_configuration` reads back."""
        return json.dumps({"family": self.family, **dataclasses.asdict(self)})


def read_configuration(text: str) -> Configuration:
    """Read what :meth:`Configuration.to_json` wrote.

    Raises:
        SpecError: not JSON, an unknown family, or numbers that it does not have.
    """
    try:
        data = json.loads(text)
        family = Configuration._families[data.pop("family")]
        return family(**{name: _frozen(value) for name, value in data.items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SpecError(
            "The configuration cannot be read.",
            where="configuration",
            expected=f"JSON with a family ({', '.join(Configuration._families)}) and its numbers",
            got=text,
            fix=f"copy it from a search ({type(error).__name__}: {error})",
        ) from None


def _frozen(value: object) -> object:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class Comparison:
    """What a claim says of one configuration.

    Attributes:
        truth: a number that the truth is not below, with its numerical error.
        bound: what the claim allows, likewise.
    """

    truth: Quantity
    bound: Quantity

    @property
    def refuted(self) -> bool:
        """Whether the truth is above the bound by more than both errors."""
        return self.truth.value - self.truth.error > self.bound.value + self.bound.error

    @property
    def ratio(self) -> float:
        """Truth over bound; infinite where something exceeds a bound of zero."""
        if self.bound.value > 0:
            return self.truth.value / self.bound.value
        return math.inf if self.refuted else 0.0


AnyConfiguration = TypeVar("AnyConfiguration", bound=Configuration)


@dataclass(frozen=True)
class Claim(Generic[AnyConfiguration]):
    """A statement that every configuration of a strategy either respects or refutes.

    Attributes:
        name: ``subject`` for what is claimed, ``subject/mistake`` for a careless version of it.
        statement: in a sentence.
        strategy: hypothesis strategy of configurations, the simplest first.
        compare: truth and bound of a configuration.
        mistake: what is wrong with a careless version; empty for a true claim.
        examples: configurations that a search draws by default: a careless version is refuted within that many.
    """

    name: str
    statement: str
    strategy: Callable[[], SearchStrategy[AnyConfiguration]]
    compare: Callable[[AnyConfiguration], Comparison]
    mistake: str = ""
    examples: int = 100

    @property
    def careless(self) -> bool:
        """Whether the claim is false on purpose."""
        return bool(self.mistake)


def numeric(value: float, error: float = 0.0) -> Quantity:
    """A number known up to an estimated numerical error, and to rounding."""
    return Quantity(float(value), float(error) + 1e-12 * (1 + abs(float(value))))


def halved(fine: float, coarse: float) -> Quantity:
    """A number computed twice: the finer one, with twice the difference as its error."""
    return numeric(fine, 2 * abs(fine - coarse))
