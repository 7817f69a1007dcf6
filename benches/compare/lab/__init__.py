"""What every comparison needs: processes that end with us, free ports, certificates, a back end, load."""
