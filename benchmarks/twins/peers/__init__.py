"""The other side of each twin: processes that train with the original code.

They may run in another environment, so they import nothing of vit_jax.
"""
