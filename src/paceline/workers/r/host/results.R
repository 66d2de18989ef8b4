# Makes what a script returned plain: vectors, lists and names, which `predictions.py` writes as JSON.
#
# Rules:
# - A result is list(layout, value). Layouts: an element a row; a column a name; a table, and then the types of its
#   columns. Where rows failed, which ones and why come next.
# - Factors are their labels. Dates are ISO 8601, and so are times, in UTC. A difftime is in seconds.
# - In a named list a single value is one for all rows.
# - Names of vectors say nothing (`predict` puts row numbers there), names of lists are keys.

ROWS <- 1L
COLUMNS <- 2L
TABLE <- 3L
# What `tryCatch(..., error = identity)` and `try` return.
FAILURES <- c("condition", "try-error")

bad_output <- function(...) {
  stop(structure(class = c("bad_output", "error", "condition"), list(message = sprintf(...), call = NULL)))
}

# The predictions for a data frame of `rows` rows.
result_of <- function(value, rows, by) {
  if (is.object(value) && inherits(value, FAILURES)) stop(condition_of(value))
  if (is.data.frame(value)) return(columns_result(value, nrow(value), rows, by))
  if (is.atomic(value) && !is.null(value)) {
    if (length(dim(value)) > 1L) return(matrix_result(value, rows, by))
    check_rows(length(value), rows, by)
    return(list(ROWS, plain_vector(value)))
  }
  if (inherits(value, "POSIXlt")) return(result_of(as.POSIXct(value), rows, by))
  if (!is.list(value)) bad_output("%s returned %s for %d rows: expected a value for each", by, kind_of(value), rows)
  if (is.null(names(value))) return(list_result(value, rows, by))
  named_result(value, rows, by)
}

named_result <- function(value, rows, by) {
  lengths <- vapply(value, NROW, 1L)
  if (any(lengths != rows)) {
    single <- lengths == 1L & vapply(value, function(column) is.null(dim(column)), NA)
    value[single] <- lapply(value[single], rep, rows)
    wrong <- which(lengths != rows & !single)
    if (length(wrong)) {
      bad_output("%s returned a named list: expected %d values in each column, got %d in '%s'",
                 by, rows, lengths[[wrong[[1L]]]], names(value)[[wrong[[1L]]]])
    }
  }
  columns_result(value, rows, rows, by)
}

condition_of <- function(failure) if (inherits(failure, "try-error")) attr(failure, "condition") else failure

list_result <- function(value, rows, by) {
  check_rows(length(value), rows, by)
  failed <- which(vapply(value, inherits, NA, FAILURES))
  why <- vapply(value[failed], function(each) message_of(condition_of(each)), "")
  value[failed] <- list(NULL)
  c(list(ROWS, lapply(value, nested)), if (length(failed)) list(failed, why))
}

matrix_result <- function(value, rows, by) {
  check_rows(nrow(value), rows, by)
  if (length(dim(value)) > 2L) bad_output("%s returned an array of %d dimensions: expected two", by, length(dim(value)))
  if (is.null(colnames(value))) return(list(ROWS, matrix_rows(value)))
  columns_result(as.data.frame(value, optional = TRUE), rows, rows, by)
}

columns_result <- function(value, got, rows, by) {
  check_rows(got, rows, by)
  if (!length(value)) bad_output("%s returned a data frame without columns", by)
  list(COLUMNS, plain_columns(value))
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
  if (inherits(vector, "Date")) return(iso(vector, "%Y-%m-%d"))
  if (inherits(vector, "POSIXct")) return(iso_time(vector))
  if (inherits(vector, "difftime")) return(as.double(vector, units = "secs"))
  # Whole numbers of 64 bits in the clothes of doubles.
  if (inherits(vector, "integer64") && requireNamespace("bit64")) return(as.double(vector))
  unclass(vector)
}

iso_time <- function(time) {
  seconds <- as.double(unclass(time))
  if (all(seconds == floor(seconds), na.rm = TRUE)) return(iso(time, "%Y-%m-%dT%H:%M:%SZ"))
  # `format` cuts off what is beyond the last digit, and a number is seldom exactly its decimal digits.
  iso(.POSIXct(seconds + 5e-7), "%Y-%m-%dT%H:%M:%OS6Z")
}

# Neither infinity nor NA is a day.
iso <- function(time, form) {
  text <- format(time, form, tz = "UTC")
  text[!is.finite(time)] <- NA
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
