# The model of the R benchmark, and its service in Paceline.

model <- lm(mpg ~ wt + hp + qsec, mtcars)

example <- data.frame(wt = 2.5, hp = 110, qsec = 17)

predict_fn <- function(df) predict(model, df)
