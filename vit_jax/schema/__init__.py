"""Configs: JSON types to and from dataclasses, whose annotations and defaults are the schema."""

from vit_jax.schema.build import Missing as Missing
from vit_jax.schema.build import add_path as add_path
from vit_jax.schema.build import build as build
from vit_jax.schema.build import nearest as nearest
from vit_jax.schema.forms import UNSET as UNSET
from vit_jax.schema.forms import FrozenMapping as FrozenMapping
from vit_jax.schema.forms import OneUnit as OneUnit
from vit_jax.schema.forms import any_of as any_of
from vit_jax.schema.forms import choice as choice
from vit_jax.schema.forms import group as group
from vit_jax.schema.forms import leaves as leaves
from vit_jax.schema.forms import listed as listed
from vit_jax.schema.forms import named as named
from vit_jax.schema.forms import plain as plain
from vit_jax.schema.forms import tables as tables
from vit_jax.schema.forms import unset as unset
from vit_jax.schema.overrides import Override as Override
from vit_jax.schema.overrides import Target as Target
from vit_jax.schema.overrides import apply as apply
from vit_jax.schema.overrides import locate as locate
