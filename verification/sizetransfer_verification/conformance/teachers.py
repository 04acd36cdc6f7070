"""The contract of teachers, clause by clause."""

from __future__ import annotations
