"""Learning from corrections: training data, comparison of a candidate with the model in service, the verdict, a gallery embedded anew"""
