"""Runs models over files, outside any server.

`paceline batch`: `rows` reads, `scoring` runs, `lines` and `output` write and can go on where they were interrupted,
`progress` tells. `paceline run`: `modules` runs a pipeline's modules, `table_files` reads and writes their tables.
"""
