"""What everything else rests on: specifications, domains, teachers, students, records, errors, randomness."""
