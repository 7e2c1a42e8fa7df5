"""The families of the zoo's layers, made known: imported before anything of `compress` is used."""

from zoo import (
    AbstractBankSSM,
    AbstractBothWaysSSM,
    AbstractLinearAttention,
    AbstractLinearSSM,
    AbstractMambaSSM,
)

from ..attention.family import ATTENTION
from ..families import register_family
from ..linear.family import BANK, BOTH_WAYS, LINEAR
from ..selective.family import MAMBA

register_family(AbstractLinearSSM, LINEAR)
register_family(AbstractBothWaysSSM, BOTH_WAYS)
register_family(AbstractBankSSM, BANK)
register_family(AbstractMambaSSM, MAMBA)
register_family(AbstractLinearAttention, ATTENTION)
