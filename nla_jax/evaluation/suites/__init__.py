"""One module a suite; `nla_jax.quantities.TABLE` names them and `evaluation.suite` loads them."""
