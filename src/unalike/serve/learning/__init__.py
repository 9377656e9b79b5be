"""Learning from what a service holds: its references and corrections become a candidate, which is compared, promoted and taken back"""
