# How far does a car go on a gallon, and who would buy it?
#
# paceline serve examples/r_predict/mileage.R

# Once in each worker, before its first request. What it returns is kept.
init <- function() {
  cars <- transform(mtcars, gears = factor(am, labels = c("automatic", "manual")))
  list(mileage = lm(mpg ~ wt + hp + gears, cars))
}

# The rows of many requests at once; a prediction for each. A data frame is an object for each row.
predict_fn <- function(df, state) {
  miles <- predict(state$mileage, df)
  data.frame(mpg = round(miles, 1), class = cut(miles, c(-Inf, 16, 22, Inf), c("thirsty", "usual", "thrifty")))
}

# For warm-up, documentation and load tests.
example <- data.frame(wt = 2.5, hp = 110, gears = "manual")
