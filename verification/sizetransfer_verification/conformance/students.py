"""The contract of students, clause by clause."""

from __future__ import annotations
