# What is the script? Read, recognised, evaluated, initialised; and then called.
#
# Rules:
# - It is parsed once, and evaluated in the global environment, where R's own lookups expect it.
# - A service is a list of functions: `setup` initialises, `run` takes a table and returns a result.

# Parse and recognise; evaluate, unless it is a Studio script, which is evaluated by every call.
load_script <- function() {
  name <- basename(arguments$script)
  lines <- sub("^\ufeff", "", readLines(arguments$script, encoding = "UTF-8", warn = FALSE))
  source <- srcfilecopy(name, lines)
  expressions <- parse(text = lines, srcfile = source, keep.source = TRUE)
  if (is_studio(expressions)) return(studio_service(expressions))
  references <- attr(expressions, "srcref")
  script_begins()
  for (index in seq_along(expressions)) {
    context$line <- references[[index]][[1L]]
    eval(expressions[[index]], globalenv())
  }
  context$line <- NULL
  script_ends()
  function_service()
}

function_service <- function(wanted = arguments$wanted) {
  if (!exists(wanted, globalenv(), mode = "function", inherits = FALSE)) stop(not_recognised(wanted), call. = FALSE)
  predict_fn <- get(wanted, globalenv(), mode = "function", inherits = FALSE)
  with_state <- takes_state(predict_fn)
  state <- types <- NULL
  list(
    about = about_function(wanted),
    setup = function() {
      state <<- initialised()
      example <- example_items()
      types <<- example$types
      example$items
    },
    run = function(df) {
      rows <- .row_names_info(df, 2L)
      if (!is.null(types)) df <- completed(df, types, rows)
      script_begins()
      value <- if (with_state) predict_fn(df, state) else predict_fn(df)
      script_ends()
      result_of(value, rows, wanted)
    }
  )
}

about_function <- function(wanted) {
  list(
    platform = "r",
    says = list(sprintf("function %s: data frames of many rows", wanted), R.version.string),
    deterministic = !identical(get0("deterministic", globalenv(), inherits = FALSE), FALSE),
    max_batch_rows = declared_rows()
  )
}

declared_rows <- function() {
  rows <- get0("max_batch_size", globalenv(), inherits = FALSE)
  if (!is.null(rows) && !(is.numeric(rows) && length(rows) == 1L && isTRUE(rows >= 1 && rows == floor(rows)))) {
    stop(sprintf("max_batch_size: expected a number >= 1, got %s", shown(rows, 60L)), call. = FALSE)
  }
  rows
}

takes_state <- function(predict_fn) {
  formals <- formals(predict_fn)
  length(formals) > 1L && names(formals)[[2L]] != "..." && identical(formals[[2L]], quote(expr = ))
}

# What `init` returns; as a list or an environment its members are visible by their names, too.
initialised <- function() {
  init <- get0("init", globalenv(), mode = "function", inherits = FALSE)
  if (is.null(init)) return(NULL)
  script_begins()
  state <- init()
  if (is.environment(state) || (is.list(state) && !is.null(names(state)) && !is.object(state))) {
    attach(state, name = "init", warn.conflicts = FALSE)
  }
  state
}

not_recognised <- function(wanted) {
  defined <- Filter(function(name) is.function(get(name, globalenv())), ls(globalenv()))
  found <- if (length(defined)) sprintf(" (it defines %s)", paste(defined, collapse = ", ")) else ""
  sprintf("expected a function %s(df), or a Studio script with maml.mapOutputPort%s", wanted, found)
}

# -- examples -----------------------------------------------------------------------------------------------------

# `example` in the script: a data frame, a list with the values of one row, or a list of such lists; or a function that
# returns one. Its types are those of columns that hold nothing but null.
example_items <- function() {
  example <- get0("example", globalenv(), inherits = FALSE)
  if (is.function(example)) example <- example()
  if (is.null(example)) return(list(items = list(), types = NULL))
  if (!is.data.frame(example) && !is.null(names(example))) example <- list(as.list(example))
  items <- if (is.data.frame(example)) frame_rows(example) else lapply(example, nested)
  types <- if (is.data.frame(example)) example else example[[1L]]
  list(items = items, types = lapply(unclass(types), missing_value))
}

missing_value <- function(column) {
  if (is.list(column)) return(list(NULL))
  if (is.factor(column) || inherits(column, c("Date", "POSIXt"))) return(NA_character_)
  switch(typeof(column), integer = NA_real_, logical = NA, character = NA_character_, NA_real_)
}

# The data frame with a column for each of `types`; one without a value is of that type.
completed <- function(df, types, rows) {
  if (!anyNA(match(names(types), names(df))) && !anyNA(unclass(df), recursive = TRUE)) return(df)
  for (name in names(types)) {
    column <- df[[name]]
    empty <- is.null(column) || (is.double(column) && !is.double(types[[name]]) && all(is.na(column)))
    if (empty) df[[name]] <- rep(types[[name]], rows)
  }
  df
}
