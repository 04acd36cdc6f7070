"""Every clause of the contract of students is a test of its own."""

from sizetransfer_verification import parametrize_with_checks

from sizetransfer_example.student import LinearFilterSpec


@parametrize_with_checks([LinearFilterSpec()])
def test_contract(check):
    check()
