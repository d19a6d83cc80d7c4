"""The contract of an attention block: :func:`check_attention` tries every law of ``LAWS``.

In a test of your own::

    def test_my_block():
        check_attention(MyBlock, variants=[{"reduction": 2}])

Example:
    >>> LAWS["batch"].statement
    'Samples of a batch do not influence each other in eval mode.'
"""

from cpsam.testing.case import BrokenLaw, Case, randomise
from cpsam.testing.contract import LAWS, Law, check_attention

__all__ = ["LAWS", "BrokenLaw", "Case", "Law", "check_attention", "randomise"]
