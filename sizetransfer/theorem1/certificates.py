"""What a teacher may certify for every noisy field at once.

The Ising teacher does (:mod:`sizetransfer.systems.ising.certificate`); so may anybody's, by the capability
:class:`~sizetransfer.contracts.oracle.HasCertificate`.
"""

from __future__ import annotations

from sizetransfer.contracts.oracle import Certificate, HasCertificate, Teacher


def certificate_of(teacher: Teacher, size: int) -> Certificate | None:
    """The certificate of a teacher at one size; none for a teacher that has none.

    Raises:
        OracleError: it is out of reach.
    """
    return teacher.certificate(size) if isinstance(teacher, HasCertificate) else None
