"""Figures of single measures, named and drawn beside them; registered by :mod:`sizetransfer.measures`.

No number depends on them: measures import nothing from here.
"""
