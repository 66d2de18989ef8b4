# Makes what a script returned plain: vectors, lists and names, which `predictions.py` writes as JSON.
#
# Rules:
# - A result is list(layout, value, types, failed, why): of a table the types of its columns; the rows that failed, and
#   why. Layouts: an element a row, a column a name, a table.
# - Factors are their labels. Dates are ISO 8601, and so are times, in UTC. A difftime is in seconds.
# - Names of vectors say nothing (`predict` puts row numbers there), names of lists are keys.

ROWS <- 1L
COLUMNS <- 2L
TABLE <- 3L

bad_output <- function(...) {
  stop(structure(class = c("bad_output", "error", "condition"), list(message = sprintf(...), call = NULL)))
}

result <- function(layout, value, types = NULL, failed = NULL, why = NULL) list(layout, value, types, failed, why)

# The predictions for a data frame of `rows` rows.
result_of <- function(value, rows, by) {
  if (is.data.frame(value)) return(columns_result(value, nrow(value), rows, by))
  if (is.atomic(value) && !is.null(value)) {
    if (length(dim(value)) > 1L) return(matrix_result(value, rows, by))
    check_rows(length(value), rows, by)
    return(result(ROWS, plain_vector(value)))
  }
  if (inherits(value, "POSIXlt")) return(result_of(as.POSIXct(value), rows, by))
  if (!is.list(value)) bad_output("%s returned %s for %d rows: expected a value for each", by, kind_of(value), rows)
  if (is.null(names(value))) return(list_result(value, rows, by))
  lengths <- vapply(value, NROW, 1L)
  if (any(lengths != rows)) {
    wrong <- which(lengths != rows)[[1L]]
    bad_output("%s returned a named list: expected %d values in each column, got %d in '%s'",
               by, rows, lengths[[wrong]], names(value)[[wrong]])
  }
  columns_result(value, rows, rows, by)
}

list_result <- function(value, rows, by) {
  check_rows(length(value), rows, by)
  failed <- which(vapply(value, inherits, NA, "condition"))
  why <- vapply(value[failed], conditionMessage, "")
  value[failed] <- list(NULL)
  result(ROWS, lapply(value, nested), failed = failed, why = enc2utf8(why))
}

matrix_result <- function(value, rows, by) {
  check_rows(nrow(value), rows, by)
  if (length(dim(value)) > 2L) bad_output("%s returned an array of %d dimensions: expected two", by, length(dim(value)))
  if (is.null(colnames(value))) return(result(ROWS, matrix_rows(value)))
  columns_result(as.data.frame(value, optional = TRUE), rows, rows, by)
}

columns_result <- function(value, got, rows, by) {
  check_rows(got, rows, by)
  if (!length(value)) bad_output("%s returned a data frame without columns", by)
  result(COLUMNS, plain_columns(value))
}

check_rows <- function(got, rows, by) {
  if (got != rows) bad_output("%s was given %d rows and returned %d", by, rows, got)
}

plain_columns <- function(columns) {
  keys <- keys_of(columns)
  columns <- lapply(unclass(columns), plain_column)
  attributes(columns) <- list(names = keys)
  columns
}

plain_column <- function(column) {
  if (is.data.frame(column)) return(frame_rows(column))
  if (is.atomic(column)) return(if (length(dim(column)) > 1L) matrix_rows(column) else plain_vector(column))
  if (inherits(column, "POSIXlt")) return(plain_vector(as.POSIXct(column)))
  lapply(unname(column), nested)
}

plain_vector <- function(vector) {
  if (is.object(vector)) vector <- unclassed(vector)
  if (is.character(vector)) return(as.vector(enc2utf8(vector)))
  if (!is.numeric(vector) && !is.logical(vector)) {
    bad_output("a prediction holds values of type %s: JSON has none", typeof(vector))
  }
  if (is.null(attributes(vector))) vector else as.vector(vector)
}

unclassed <- function(vector) {
  if (is.factor(vector)) return(as.character(vector))
  if (inherits(vector, "Date")) return(format(vector, "%Y-%m-%d"))
  if (inherits(vector, "POSIXct")) return(iso_time(vector))
  if (inherits(vector, "difftime")) return(as.double(vector, units = "secs"))
  # Whole numbers of 64 bits in the clothes of doubles.
  if (inherits(vector, "integer64") && requireNamespace("bit64")) return(as.double(vector))
  unclass(vector)
}

iso_time <- function(time) {
  seconds <- as.double(unclass(time))
  whole <- all(seconds == floor(seconds), na.rm = TRUE)
  text <- format(time, if (whole) "%Y-%m-%dT%H:%M:%SZ" else "%Y-%m-%dT%H:%M:%OS6Z", tz = "UTC")
  text[is.na(seconds)] <- NA
  text
}

# Whatever lies inside a prediction.
nested <- function(value) {
  if (is.null(value)) return(NULL)
  if (is.data.frame(value)) return(frame_rows(value))
  if (is.atomic(value)) {
    if (length(dim(value)) > 1L) return(matrix_rows(value))
    plain <- plain_vector(value)
    return(if (inherits(value, "AsIs")) as.list(plain) else plain)
  }
  if (inherits(value, "POSIXlt")) return(nested(as.POSIXct(value)))
  if (!is.list(value)) bad_output("a prediction holds %s: JSON has none", kind_of(value))
  parts <- lapply(unclass(value), nested)
  attributes(parts) <- if (is.null(names(value))) NULL else list(names = keys_of(value))
  parts
}

frame_rows <- function(frame) {
  columns <- plain_columns(frame)
  lapply(seq_len(nrow(frame)), function(row) lapply(columns, `[[`, row))
}

matrix_rows <- function(matrix) {
  lapply(seq_len(nrow(matrix)), function(row) as.list(plain_vector(as.vector(matrix[row, ]))))
}

# Names that are keys of a JSON object: each is there once, none is empty.
keys_of <- function(value) {
  keys <- names(value)
  unnamed <- is.na(keys) | keys == ""
  if (any(unnamed)) keys[unnamed] <- paste0("V", which(unnamed))
  if (anyDuplicated(keys)) keys <- make.unique(keys)
  enc2utf8(keys)
}

kind_of <- function(value) {
  if (is.null(value)) "NULL" else paste("an object of class", class(value)[[1L]])
}
