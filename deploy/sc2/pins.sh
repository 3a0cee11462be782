# What `make sc2-python` and `make sc2` install, to the bit. Sourced by the scripts beside it.
SMAC_COMMIT=d6aab33f76abc3849c50463a8592a84f59a5ef84
SMAC_ARCHIVE=https://github.com/oxwhirl/smac/archive/$SMAC_COMMIT.tar.gz
PYSC2=pysc2==4.0.0
S2CLIENTPROTOCOL=s2clientprotocol==5.0.17.98310.0
# SMAC's authors report results with 4.10; the paper's are of 4.6.2. Results of different versions differ.
SC2_VERSION=4.10
SC2_SHA256=${SC2_SHA256:-1052f249f30a242bf5e17cc3315324919f9689307ca6dbcdb30bb41ea3004884}
