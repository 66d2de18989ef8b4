# Scripts of the Studio module "Execute R Script": evaluated by every call.
#
# Rules:
# - `maml.mapInputPort(1)` and `(2)` are the tables of the call, `maml.mapOutputPort("name")` names the answer. The
#   request's parameters are the list `maml.parameters`.
# - What a call creates is gone at its end; what it attaches stays. So a script initialises once:
#   if (!("my_env" %in% search())) attach(list(model = readRDS("src/model.rds")), name = "my_env")

STUDIO_TYPES <- c(logical = "Boolean", integer = "Int32", double = "Double", character = "String")

# What the functions below share with the call.
ports <- new.env(parent = emptyenv())

is_studio <- function(expressions) {
  mentioned <- all.names(expressions)
  wanted <- as.name(arguments$wanted)
  defines <- vapply(expressions, function(each) {
    is.call(each) && length(each) == 3L && any(each[[1L]] == c("<-", "=")) && identical(each[[2L]], wanted)
  }, NA)
  any(c("maml.mapInputPort", "maml.mapOutputPort") %in% mentioned) && !any(defines)
}

studio_service <- function(expressions) {
  check_packages(expressions)
  if (nzchar(arguments$bundle)) setwd(arguments$bundle)
  maml <- list(maml.mapInputPort = input_port, maml.mapOutputPort = output_port, maml.parameters = list())
  visible <- attach(maml, name = "maml", warn.conflicts = FALSE)
  list(
    about = list(
      platform = "r",
      says = list("Studio script: evaluated by every call", R.version.string),
      routes = list("execute"),
      tables = 2L,
      parameters = TRUE,
      max_batch_rows = 1L
    ),
    setup = function() list(),
    run = function(call) {
      ports$inputs <- call[1:2]
      assign("maml.parameters", call[[3L]], envir = visible)
      ports$output <- NULL
      script_begins()
      for (expression in expressions) eval(expression, globalenv())
      if (is.null(ports$output)) bad_output("no output: expected a call of maml.mapOutputPort(\"name\")")
      table_result(ports$output)
    }
  )
}

input_port <- function(port) {
  if (!(is.numeric(port) && length(port) == 1L && port %in% 1:2)) stop("maml.mapInputPort: expected 1 or 2")
  table <- ports$inputs[[port]]
  if (is.null(table)) stop("maml.mapInputPort: the request has no table for port ", port, call. = FALSE)
  table
}

output_port <- function(name) {
  if (!(is.character(name) && length(name) == 1L)) stop("maml.mapOutputPort: expected the name of a data frame")
  value <- get(name, envir = parent.frame())
  if (!is.data.frame(value)) {
    stop("maml.mapOutputPort: '", name, "' is no data frame but ", class(value)[[1L]], call. = FALSE)
  }
  ports$output <- value
  invisible(value)
}

table_result <- function(table) {
  list(TABLE, plain_columns(table), unname(vapply(unclass(table), studio_type, "")))
}

studio_type <- function(column) {
  if (inherits(column, c("Date", "POSIXt"))) return("DateTime")
  if (is.factor(column)) return("String")
  type <- STUDIO_TYPES[typeof(column)]
  if (is.na(type)) "Object" else type
}

# The script is not evaluated before the first call: what it needs is looked up now.
check_packages <- function(expressions) {
  for (expression in expressions) {
    package <- loaded_package(expression)
    if (!is.null(package) && !nzchar(system.file(package = package))) {
      stop(packageNotFoundError(package, .libPaths()))
    }
  }
}

# `library(name)`, also inside `suppressWarnings()` and the like.
loaded_package <- function(expression) {
  if (!is.call(expression) || length(expression) < 2L) return(NULL)
  head <- as.character(expression[[1L]])[[1L]]
  if (grepl("^suppress", head)) return(loaded_package(expression[[2L]]))
  named <- expression[[2L]]
  if (head == "library" && is.null(names(expression)) && (is.name(named) || is.character(named))) as.character(named)
}
