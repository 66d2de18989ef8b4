# How many minutes from here to there? All shortest ways are worked out once; a call looks them up.
#
# paceline serve examples/init_once/model.R

places <- 560

# Once in each worker, before its first request: two or three seconds. What it returns is kept.
init <- function() list(minutes = shortest(roads(places)))

predict_fn <- function(df, state) state$minutes[cbind(df$from + 1, df$to + 1)]

example <- data.frame(from = 1, to = places / 2)

# Minutes between places with a road: three roads from each, the same at every start.
roads <- function(places) {
  minutes <- matrix(Inf, places, places)
  for (place in seq_len(places) - 1) {
    for (other in c(place + 1, 7 * place + 3, 31 * place + 5) %% places) {
      takes <- 2 + (13 * place + other) %% 9
      minutes[place + 1, other + 1] <- takes
      minutes[other + 1, place + 1] <- takes
    }
  }
  diag(minutes) <- 0
  minutes
}

# Minutes between all places: by way of the first, of the first two, ... (Floyd and Warshall)
shortest <- function(minutes) {
  for (by in seq_len(nrow(minutes))) {
    minutes <- pmin(minutes, outer(minutes[, by], minutes[by, ], "+"))
  }
  minutes
}
