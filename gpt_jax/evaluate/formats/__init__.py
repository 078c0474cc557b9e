"""The data formats of evaluation tasks: which files and which fields a task's records come in.

`form` says what a form is and checks fields; `files` reads data sets' own file formats;
`completions`, `questions` and `written` hold the forms, by kind of task. Must not import jax.
"""
