# Installs the packages that are missing into a library. Arguments: the library, and names of packages.
#
# `install.packages` warns of what it cannot do, and goes on: what counts is whether the packages are there.

local({
  arguments <- commandArgs(trailingOnly = TRUE)
  library <- arguments[[1L]]
  .libPaths(c(library, .libPaths()))
  missing_of <- function(names) names[!vapply(names, function(name) nzchar(system.file(package = name)), NA)]
  missing <- missing_of(arguments[-1L])
  if (!length(missing)) quit("no")
  if (!length(getOption("repos")) || "@CRAN@" %in% getOption("repos")) {
    cat("missing:", missing, "\nthere is no repository to install from: the option 'repos' is not set\n")
    quit("no", status = 1L)
  }
  options(warn = 1L)
  utils::install.packages(missing, lib = library)
  missing <- missing_of(missing)
  if (length(missing)) {
    cat("not installed:", missing, "\nfrom:", paste(getOption("repos"), collapse = ", "), "\n")
    quit("no", status = 1L)
  }
})
