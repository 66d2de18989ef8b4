"""A Studio module, "Execute Python Script", with its zip bundle.

cd examples/studio_python
python -m zipfile -c fares.zip bundle/zones.py bundle/fees.csv
paceline serve fares.py
"""

import pandas as pd
import zones  # out of the bundle

fees = pd.read_csv("./Script Bundle/fees.csv")  # evaluated once, and kept


def azureml_main(dataframe1=None, dataframe2=None):
    joined = dataframe1.merge(fees, on="zone")
    joined["fare"] = zones.BASE + joined["km"] * joined["fee"]
    return (joined,)


def example():
    return {"zone": "A", "km": 3}
