"""What a run would need on TPUs: memory, time and cost, from the compiled step and without a TPU.

`compiling` compiles the designed step with the TPU compiler, `hlo`, `costs`, `collectives` and
`schedule` read the compiled program, and `plan` puts the results together. Nothing is executed:
memory, FLOPs and bytes are read from the program, times are predicted (docs/plan.md says how well).
"""
